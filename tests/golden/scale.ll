define void @kernel(ptr noalias %args, ptr noalias %scratch) {
entry:
  %v1 = getelementptr i64, ptr %args, i64 0
  %v2 = load i64, ptr %v1, align 8
  %x.address = inttoptr i64 %v2 to ptr
  %v3 = getelementptr i64, ptr %args, i64 1
  %v4 = load i64, ptr %v3, align 8
  %v5 = getelementptr i64, ptr %args, i64 2
  %v6 = load i64, ptr %v5, align 8
  %v7 = getelementptr i64, ptr %args, i64 5
  %v8 = load i64, ptr %v7, align 8
  %out.address = inttoptr i64 %v8 to ptr
  %v9 = getelementptr i64, ptr %args, i64 6
  %v10 = load i64, ptr %v9, align 8
  %v11 = getelementptr i64, ptr %args, i64 7
  %v12 = load i64, ptr %v11, align 8
  %v13 = getelementptr i64, ptr %args, i64 10
  %v14 = load i64, ptr %v13, align 8
  %v15 = trunc i64 %v14 to i16
  %v16 = bitcast i16 %v15 to half
  %v17 = fpext half %v16 to float
  %v18 = icmp ne i64 %v6, 2
  %v19 = ptrtoint ptr %x.address to i64
  %v20 = add i64 %v19, 2
  %v21 = sub i64 2, 1
  %v22 = mul i64 %v4, %v21
  %v23 = icmp slt i64 %v22, 0
  %v24 = select i1 %v23, i64 %v22, i64 0
  %v25 = add i64 %v19, %v24
  %v26 = select i1 %v23, i64 0, i64 %v22
  %v27 = add i64 %v20, %v26
  %v28 = sub i64 20, 1
  %v29 = mul i64 2, %v28
  %v30 = add i64 %v27, %v29
  %v31 = ptrtoint ptr %out.address to i64
  %v32 = add i64 %v31, 2
  %v33 = sub i64 2, 1
  %v34 = mul i64 %v10, %v33
  %v35 = icmp slt i64 %v34, 0
  %v36 = select i1 %v35, i64 %v34, i64 0
  %v37 = add i64 %v31, %v36
  %v38 = select i1 %v35, i64 0, i64 %v34
  %v39 = add i64 %v32, %v38
  %v40 = sub i64 20, 1
  %v41 = mul i64 2, %v40
  %v42 = add i64 %v39, %v41
  %v43 = icmp ult i64 %v25, %v42
  %v44 = icmp ult i64 %v37, %v30
  %v45 = and i1 %v43, %v44
  %v46 = icmp eq ptr %x.address, %out.address
  %v47 = icmp eq i64 %v4, %v10
  %v48 = and i1 %v46, %v47
  %v49 = icmp eq i64 %v6, %v12
  %v50 = and i1 %v48, %v49
  %v51 = xor i1 %v50, -1
  %v52 = and i1 %v45, %v51
  %v53 = or i1 %v18, %v52
  %v54 = getelementptr i8, ptr %scratch, i64 0
  br i1 %v53, label %rare, label %chosen, !prof !1
chosen:
  %v55 = phi ptr [%v54, %rare], [%x.address, %entry]
  %v56 = phi i64 [40, %rare], [%v4, %entry]
  %v57 = phi i64 [2, %rare], [%v6, %entry]
  %v58 = icmp ne i64 %v12, 2
  %v59 = getelementptr i8, ptr %scratch, i64 192
  br i1 %v58, label %rare.2, label %chosen.2, !prof !1
rare:
  call void @pto_wsp_copy_2(ptr %v54, i64 40, i64 2, ptr %x.address, i64 %v4, i64 %v6, i64 2, i64 20)
  br label %chosen
chosen.2:
  %v60 = phi ptr [%v59, %rare.2], [%out.address, %chosen]
  %v61 = phi i64 [40, %rare.2], [%v10, %chosen]
  %v62 = phi i64 [2, %rare.2], [%v12, %chosen]
  br label %loop
rare.2:
  br label %chosen.2
loop:
  %v63 = phi i64 [0, %chosen.2], [%v99, %body]
  %v64 = icmp slt i64 %v63, 2
  br i1 %v64, label %body, label %done
body:
  %v65 = mul i64 %v63, %v56
  %v66 = getelementptr i8, ptr %v55, i64 %v65
  %v67 = getelementptr i16, ptr %v66, i64 0
  %v68 = load <16 x i16>, ptr %v67, align 2
  %v69 = bitcast <16 x i16> %v68 to <16 x half>
  %v70 = fpext <16 x half> %v69 to <16 x float>
  %v71 = insertelement <16 x float> undef, float %v17, i32 0
  %v72 = shufflevector <16 x float> %v71, <16 x float> undef, <16 x i32> zeroinitializer
  %v73 = fmul <16 x float> %v70, %v72
  %v74 = fptrunc <16 x float> %v73 to <16 x half>
  %v75 = bitcast <16 x half> %v74 to <16 x i16>
  %v76 = bitcast <16 x i16> %v75 to <16 x half>
  %v77 = fpext <16 x half> %v76 to <16 x float>
  %v78 = mul i64 %v63, %v61
  %v79 = getelementptr i8, ptr %v60, i64 %v78
  %v80 = getelementptr i16, ptr %v79, i64 0
  store <16 x i16> %v75, ptr %v80, align 2
  %v81 = mul i64 %v63, %v56
  %v82 = getelementptr i8, ptr %v55, i64 %v81
  %v83 = getelementptr i16, ptr %v82, i64 16
  %v84 = call <16 x i16> @llvm.masked.load.v16i16.p0(ptr %v83, i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %v85 = bitcast <16 x i16> %v84 to <16 x half>
  %v86 = fpext <16 x half> %v85 to <16 x float>
  %v87 = insertelement <16 x float> undef, float %v17, i32 0
  %v88 = shufflevector <16 x float> %v87, <16 x float> undef, <16 x i32> zeroinitializer
  %v89 = fmul <16 x float> %v86, %v88
  %v90 = fptrunc <16 x float> %v89 to <16 x half>
  %v91 = bitcast <16 x half> %v90 to <16 x i16>
  %v92 = bitcast <16 x i16> %v91 to <16 x half>
  %v93 = fpext <16 x half> %v92 to <16 x float>
  %v94 = mul i64 %v63, %v61
  %v95 = getelementptr i8, ptr %v60, i64 %v94
  %v96 = getelementptr i16, ptr %v95, i64 16
  %v97 = getelementptr i16, ptr %v96, i64 0
  %v98 = shufflevector <16 x i16> %v91, <16 x i16> %v91, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %v98, ptr %v97, align 2
  %v99 = add nuw nsw i64 %v63, 1
  br label %loop
done:
  br i1 %v58, label %then, label %done.2, !prof !1
then:
  %v100 = getelementptr i8, ptr %scratch, i64 192
  call void @pto_wsp_copy_2(ptr %out.address, i64 %v10, i64 %v12, ptr %v100, i64 40, i64 2, i64 2, i64 20)
  br label %done.2
done.2:
  ret void
}

declare void @pto_wsp_copy_2(ptr, i64, i64, ptr, i64, i64, i64, i64)
declare <16 x i16> @llvm.masked.load.v16i16.p0(ptr, i32, <16 x i1>, <16 x i16>)
!1 = !{!"branch_weights", i32 1, i32 1048576}

define i64 @"kernel.scratch"() {
  ret i64 384
}
