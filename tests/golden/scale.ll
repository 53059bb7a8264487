define void @kernel(ptr noalias %args, ptr noalias %scratch) {
entry:
  %v1 = load i64, ptr %args, align 8
  %x.address = inttoptr i64 %v1 to ptr
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load i64, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load i64, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 5
  %v7 = load i64, ptr %v6, align 8
  %out.address = inttoptr i64 %v7 to ptr
  %v8 = getelementptr i64, ptr %args, i64 6
  %v9 = load i64, ptr %v8, align 8
  %v10 = getelementptr i64, ptr %args, i64 7
  %v11 = load i64, ptr %v10, align 8
  %v12 = getelementptr i64, ptr %args, i64 10
  %v13 = load i64, ptr %v12, align 8
  %v14 = trunc i64 %v13 to i16
  %v15 = bitcast i16 %v14 to half
  %v16 = fpext half %v15 to float
  %v17 = icmp ne i64 %v5, 2
  %v18 = ptrtoint ptr %x.address to i64
  %v19 = add i64 %v18, 2
  %v20 = icmp slt i64 %v3, 0
  %v21 = select i1 %v20, i64 %v3, i64 0
  %v22 = add i64 %v18, %v21
  %v23 = select i1 %v20, i64 0, i64 %v3
  %v24 = add i64 %v19, %v23
  %v25 = add i64 %v24, 38
  %v26 = ptrtoint ptr %out.address to i64
  %v27 = add i64 %v26, 2
  %v28 = icmp slt i64 %v9, 0
  %v29 = select i1 %v28, i64 %v9, i64 0
  %v30 = add i64 %v26, %v29
  %v31 = select i1 %v28, i64 0, i64 %v9
  %v32 = add i64 %v27, %v31
  %v33 = add i64 %v32, 38
  %v34 = icmp ult i64 %v22, %v33
  %v35 = icmp ult i64 %v30, %v25
  %v36 = and i1 %v34, %v35
  %v37 = icmp eq ptr %x.address, %out.address
  %v38 = icmp eq i64 %v3, %v9
  %v39 = and i1 %v37, %v38
  %v40 = icmp eq i64 %v5, %v11
  %v41 = and i1 %v39, %v40
  %v42 = xor i1 %v41, -1
  %v43 = and i1 %v36, %v42
  %v44 = or i1 %v17, %v43
  br i1 %v44, label %rare, label %chosen, !prof !1
chosen:
  %v45 = phi ptr [%scratch, %rare], [%x.address, %entry]
  %v46 = phi i64 [40, %rare], [%v3, %entry]
  %v47 = phi i64 [2, %rare], [%v5, %entry]
  %v48 = icmp ne i64 %v11, 2
  %v49 = getelementptr i8, ptr %scratch, i64 192
  br i1 %v48, label %rare.2, label %chosen.2, !prof !1
rare:
  call void @pto_wsp_copy_2(ptr %scratch, i64 40, i64 2, ptr %x.address, i64 %v3, i64 %v5, i64 2, i64 20)
  br label %chosen
chosen.2:
  %v50 = phi ptr [%v49, %rare.2], [%out.address, %chosen]
  %v51 = phi i64 [40, %rare.2], [%v9, %chosen]
  %v52 = phi i64 [2, %rare.2], [%v11, %chosen]
  br label %loop
rare.2:
  br label %chosen.2
loop:
  %v53 = phi i64 [0, %chosen.2], [%v86, %body]
  %v54 = icmp slt i64 %v53, 2
  br i1 %v54, label %body, label %done
body:
  %v55 = mul i64 %v53, %v46
  %v56 = getelementptr i8, ptr %v45, i64 %v55
  %v57 = load <16 x i16>, ptr %v56, align 2
  %v58 = bitcast <16 x i16> %v57 to <16 x half>
  %v59 = fpext <16 x half> %v58 to <16 x float>
  %v60 = insertelement <16 x float> undef, float %v16, i32 0
  %v61 = shufflevector <16 x float> %v60, <16 x float> undef, <16 x i32> zeroinitializer
  %v62 = fmul <16 x float> %v59, %v61
  %v63 = fptrunc <16 x float> %v62 to <16 x half>
  %v64 = bitcast <16 x half> %v63 to <16 x i16>
  %v65 = bitcast <16 x i16> %v64 to <16 x half>
  %v66 = fpext <16 x half> %v65 to <16 x float>
  %v67 = mul i64 %v53, %v51
  %v68 = getelementptr i8, ptr %v50, i64 %v67
  store <16 x i16> %v64, ptr %v68, align 2
  %v69 = mul i64 %v53, %v46
  %v70 = getelementptr i8, ptr %v45, i64 %v69
  %v71 = getelementptr i16, ptr %v70, i64 16
  %v72 = call <16 x i16> @llvm.masked.load.v16i16.p0(ptr %v71, i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %v73 = bitcast <16 x i16> %v72 to <16 x half>
  %v74 = fpext <16 x half> %v73 to <16 x float>
  %v75 = insertelement <16 x float> undef, float %v16, i32 0
  %v76 = shufflevector <16 x float> %v75, <16 x float> undef, <16 x i32> zeroinitializer
  %v77 = fmul <16 x float> %v74, %v76
  %v78 = fptrunc <16 x float> %v77 to <16 x half>
  %v79 = bitcast <16 x half> %v78 to <16 x i16>
  %v80 = bitcast <16 x i16> %v79 to <16 x half>
  %v81 = fpext <16 x half> %v80 to <16 x float>
  %v82 = mul i64 %v53, %v51
  %v83 = getelementptr i8, ptr %v50, i64 %v82
  %v84 = getelementptr i16, ptr %v83, i64 16
  %v85 = shufflevector <16 x i16> %v79, <16 x i16> %v79, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %v85, ptr %v84, align 2
  %v86 = add nuw nsw i64 %v53, 1
  br label %loop
done:
  br i1 %v48, label %then, label %done.2, !prof !1
then:
  %v87 = getelementptr i8, ptr %scratch, i64 192
  call void @pto_wsp_copy_2(ptr %out.address, i64 %v9, i64 %v11, ptr %v87, i64 40, i64 2, i64 2, i64 20)
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
